"""How the demo networks are trained, stage by stage, and exported."""
