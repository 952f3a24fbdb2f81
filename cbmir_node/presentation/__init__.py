"""Pictures of images, and what the network sees in them, for people."""
