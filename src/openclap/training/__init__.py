"""Training: a frozen configuration, one step, the loop around it, and the state that lets it go on."""
