"""The sky as a line of order-29 HEALPix cells: positions, tiles, ranges, regions and their coverage."""
