"""What a person sees: run folders, tables, figures, viewers and the chapter frame."""
