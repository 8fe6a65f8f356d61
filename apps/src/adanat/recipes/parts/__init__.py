"""The parts of a recipe: what each stage of a run goes by. `adanat.recipes.base` joins them."""
