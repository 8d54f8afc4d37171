"""Test scenes by a third author, to see whether what was learned from other scenes holds for new ones.

This was written independently of the training generator and of `other_scenes`. So backgrounds, layouts, paints,
names, wordings and the rules for what a phrase means are its own; it shares with them the nouns and, unless told
otherwise, the font.

A scene has two to six things. The truth of a thing is what is seen of it, and what a phrase means is computed from the
scene; a phrase that could fairly be read to mean something else is not used. The files have gRefCOCO's format:

    python -m benchmarks.third_scenes --count 400 --seed 70213 --out build/third_scenes
    python scripts/evaluate.py --dataset grefcoco --split val --root build/third_scenes \\
        --images build/third_scenes/train2014 --repository model_repository

One seed gives the same files wherever font, Python, NumPy and Pillow are the same. All scenes of a seed share one
stream of random numbers, so the order in which the modules draw them has to stay as it is.
"""
