"""The parts of build_cell_presets.py: cells from papers, and cells from published measurements."""
