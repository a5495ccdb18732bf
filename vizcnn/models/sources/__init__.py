"""Where networks come from: one module for each kind of name that `vizcnn.load` reads."""
