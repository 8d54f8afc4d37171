"""Test scenes by another author, to see whether `tiny` learned the things or the generator of its scenes.

Who wrote this had not seen the training generator, only a list of nouns and the kinds of phrase. So backgrounds,
layouts, wordings and the rules for what a phrase means are its own; it shares with the training the nouns and, unless
told otherwise, the font.

A scene has one to six things. The truth of a thing is what is seen of it, and what a phrase means is computed from the
scene; a phrase that could fairly be read to mean something else is not used. The files have gRefCOCO's format:

    python -m benchmarks.other_scenes --count 500 --seed 1 --out build/other_scenes
    python scripts/evaluate.py --dataset grefcoco --split val --root build/other_scenes \\
        --images build/other_scenes/train2014 --repository model_repository

One seed gives the same files wherever font, NumPy and Pillow are the same, so the order in which the modules draw
random numbers has to stay as it is.
"""
