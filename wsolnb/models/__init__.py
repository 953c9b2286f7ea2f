"""Networks: backbones cut into stages, and what each paper puts on top."""
