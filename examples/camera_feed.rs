//! Feeds pictures to a v4l2loopback device, for the test in a virtual machine: `camera_feed
//! /dev/video9 WIDTHxHEIGHT FPS SECONDS FILE.jpg...` writes the files in turn as MJPEG frames.

use std::{error::Error, fs, io::Write, thread::sleep, time::Duration};

use v4l::{Device, Format, FourCC, video::Output};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [device, size, fps, seconds, files @ ..] = words.as_slice() else {
        return Err("usage: camera_feed DEVICE WIDTHxHEIGHT FPS SECONDS FILE.jpg...".into());
    };
    let (width, height) = size.split_once('x').ok_or("SIZE is WIDTHxHEIGHT")?;
    let pictures = files.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    let (fps, seconds): (u32, u32) = (fps.parse()?, seconds.parse()?);

    let mut device = Device::with_path(device)?;
    let wanted = Format::new(width.parse()?, height.parse()?, FourCC::new(b"MJPG"));
    let got = Output::set_format(&device, &wanted)?;
    if got.fourcc != wanted.fourcc {
        return Err(format!("the device took {} instead of MJPG", got.fourcc).into());
    }
    for picture in pictures.iter().cycle().take((fps * seconds) as usize) {
        device.write_all(picture)?;
        sleep(Duration::from_secs(1) / fps);
    }
    Ok(())
}
