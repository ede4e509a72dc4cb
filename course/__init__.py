"""What runs the course: the graph of its parts, progress, Slurm, studies, recorded results, exercises, the site."""
