"""Agreement of networks before and after fine-tuning per image: flips, calibration, scores."""
