"""The browser demo: a page on this machine, fed by the visitor's camera or by a clip.

`python -m streamer.demo` serves it. The page is drawn by Gradio and by the modules in `static/`; frames,
results and clips travel through the routes of `app.py`, which know nothing of Gradio. See docs/demo.md.
"""
