"""How the shipped networks were trained: recipes, augmentation, calibration."""
