"""The line through all rooms, on bundled sounds: pack, train, measure, search."""
