"""Who learns when (schedule), from what (losses), and a file for each method."""
