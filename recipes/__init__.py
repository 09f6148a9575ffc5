"""Makes `tune run recipes/gog_recipes/NAME.py` find this folder and not torchtune's package of the same name."""
