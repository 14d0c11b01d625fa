//! Replayed cameras: a folder of pictures or a concatenated MJPEG file, at a frame rate.
