"""The only room that imports torch and ultralytics: everything that runs beside the training.

Other rooms start these modules as processes (`python -m nantui.training.worker …`) and read the files
that they leave; nobody imports them.
"""
