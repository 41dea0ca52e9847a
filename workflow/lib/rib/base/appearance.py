"""Colours and labels of figures, the results page and its interactive views."""

# Gains and losses: dark ends and middle of ColorBrewer's PuOr, which is colour-blind safe.
GAIN = "#b35806"
LOSS = "#542788"
UNCHANGED = "#f7f7f7"

# Greys, from dark to light.
PAGE_INK = "#1c1c1c"  # text of the page and its interactive views, on a light ground
INK = "#252525"  # text, edges and the pretrained model
DARK_GREY = "#525252"
GREY = "#737373"
PALE = "#8c8c8c"  # background lines
LIGHT_GREY = "#999999"

# Shades of one blue, distinguishable in greyscale.
DARKEST_BLUE = "#08306b"
DARK_BLUE = "#08519c"
LIGHT_BLUE = "#9ecae1"

# Okabe & Ito 2008, colour-blind safe.
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
SKY_BLUE = "#56B4E9"
ORANGE = "#E69F00"
BLACK = "#000000"

# For models whose entries name no colour.
MODEL_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY_BLUE, BLACK, LIGHT_GREY)

PRETRAINED_LABEL = "pretrained"  # its label among the methods
MRI_LABEL = "mRI"  # mean RI (change of accuracy on other datasets, in points) over targets
SHARED = "‡"  # marks datasets that share source images
