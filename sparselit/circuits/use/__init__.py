"""What circuits are used for: interventions, what a node does, and how circuits came about."""
