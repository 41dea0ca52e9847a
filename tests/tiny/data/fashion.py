"""What is known of the fashion family's prepared datasets."""

# First 16 hex digits of the SHA-256 of images.npy at 32 pixels.
DIGESTS = {
    "fashion_train": "3352c2e7d336d865",
    "fashion": "cc7a1170aa2828b3",
    "fashion_edges": "034241b2b2828833",
    "fashion_cartoon": "5349db07ee8c51d8",
    "fashion_drawing": "f2e7f4b5fa50dab8",
    "fashion_background": "4e87474126fed05c",
    "fashion_tilted": "27a5772b515a5bab",
    "fashion_recoloured": "5dae0dcb202abe48",
    "fashion_corrupted": "327e3cee77d373a7",
    "fashion_adversarial": "b1c8ce8d76f6bdae",
}
