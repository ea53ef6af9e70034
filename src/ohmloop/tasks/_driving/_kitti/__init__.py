"""3D detection in the KITTI format: reading, boxes, average precision, simulated scenes, tasks.

The benchmark: Geiger, Lenz, Urtasun, CVPR 2012. Here boxes lie in the frame of the laser scanner: x forward,
y left, z up, metres; a box is (x, y, z, length, width, height, yaw) about its centre, yaw counter-clockwise
from x to the box's length.
"""
