"""Occlusion sensitivity (Zeiler & Fergus 2013, section 4.1 and Fig 7): which parts the prediction stands on."""
