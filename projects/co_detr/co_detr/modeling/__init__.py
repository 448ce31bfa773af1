"""Parts of the detector, from feature maps to losses and detections."""
