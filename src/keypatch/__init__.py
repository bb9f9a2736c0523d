"""keypatch: tomograms and keypoints in, a training set of patches, float keypoints and coarse Gaussians out."""

__version__ = "0.1.0"
