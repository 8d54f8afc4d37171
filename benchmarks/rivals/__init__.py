"""What a user might have built instead, with the same weights: nothing here is part of the product."""
