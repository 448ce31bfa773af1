"""From feature maps to losses and detections."""
