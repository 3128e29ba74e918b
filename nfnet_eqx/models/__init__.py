"""What a network is: pure functions of arrays, their configuration and their parts."""
