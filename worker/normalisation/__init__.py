"""From a picture to the 28×28 that the network was trained on."""
