"""What actions are worth: expressions over arrays, the grid, its search and its constraints. Pure numerics."""
