"""How fine-tuning changes the representations of layers, by CKA."""
