"""Maps and boxes from any trained classifier."""
