"""The probes of vizcnn, one file each: the method and nothing else."""
