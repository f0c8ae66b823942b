"""How pictures of the demo model are judged by geometry and colour."""
