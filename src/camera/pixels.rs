//! Raw frames become pictures: YUYV, NV12, GREY and MJPEG to RGB. Pure.
