"""What 2310.16764 ("ConvNets Match Vision Transformers at Scale") states in numbers, and what we derive from it.

The paper prints neither a formula nor an exponent; these are all the places at which its scaling rule can be held.
"""

# Its networks, the smallest first, on JFT-4B at 224 pixels and batch 4096 (section 2).
MODELS = ("dm_nfnet_f0", "dm_nfnet_f1", "dm_nfnet_f3", "dm_nfnet_f3_plus", "dm_nfnet_f7", "dm_nfnet_f7_plus")
IMAGES = 4_000_000_000
IMAGE_SIZE = 224
BATCH_SIZE = 4096
# The range of its epoch budgets (figure 3).
FEWEST_EPOCHS, MOST_EPOCHS = 0.25, 8.0

# The largest run, which is of the last one, and the cheapest of all (section 2). Core hours of a TPU v4.
LARGEST_EPOCHS = 8.0
LARGEST_CORE_HOURS = 110_000
SMALLEST_CORE_HOURS = 400
# Above about so many the best number of epochs is larger than one (section 2).
MORE_THAN_ONE_EPOCH_CORE_HOURS = 5_000

# The best learning rate of small budgets, and the lowest best one (figure 3, the end of its axis).
LEARNING_RATE = 1.6
LOWEST_LEARNING_RATE = 0.4

# Derived by us: what the 110,000 core hours of the largest run imply, at 137.5 TFLOP/s a core. Of the ViTs in the
# paper's comparison the same sum gives 0.41 to 0.43.
TPU_UTILISATION = 0.355
# Assumed by us: large ViTs train at about 0.4 of a GPU's peak, and NFNets do about half the multiply-adds a second that
# ViTs do on recent GPUs (timm's tables of inference on RTX 4090, 5090 and Pro 6000).
GPU_UTILISATION = 0.2
