"""Images and the truth about them: the drawn world, readers of official layouts, class trees."""
