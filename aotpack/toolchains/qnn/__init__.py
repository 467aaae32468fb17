"""QNN's EP: Qualcomm's Hexagon NPUs."""
