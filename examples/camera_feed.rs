//! Feeds pictures to a v4l2loopback device, for the tests in a virtual machine: `camera_feed
//! /dev/video9 WIDTHxHEIGHT FPS SECONDS FILE.jpg...` writes the files in turn as MJPEG frames.
//! `camera_feed /dev/video9 WIDTHxHEIGHT FPS SECONDS FOLDER` writes those of the folder, looked up
//! anew for each frame: when the folder is a link, another scene is on with the next frame.

use std::{error::Error, fs, io::Write, path::PathBuf, thread::sleep, time::Duration};

use v4l::{Device, Format, FourCC, video::Output};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [device, size, fps, seconds, files @ ..] = words.as_slice() else {
        return Err("usage: camera_feed DEVICE WIDTHxHEIGHT FPS SECONDS FILE.jpg...".into());
    };
    let (width, height) = size.split_once('x').ok_or("SIZE is WIDTHxHEIGHT")?;
    let (fps, seconds): (u32, u32) = (fps.parse()?, seconds.parse()?);

    let mut device = Device::with_path(device)?;
    let wanted = Format::new(width.parse()?, height.parse()?, FourCC::new(b"MJPG"));
    let got = Output::set_format(&device, &wanted)?;
    if got.fourcc != wanted.fourcc {
        return Err(format!("the device took {} instead of MJPG", got.fourcc).into());
    }
    let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
    for number in 0..(fps * seconds) as usize {
        let scene = match files.as_slice() {
            [folder] if folder.is_dir() => pictures_in(folder)?,
            files => files.to_vec(),
        };
        let file = scene.get(number % scene.len().max(1)).ok_or("there is no picture")?;
        device.write_all(&fs::read(file)?)?;
        sleep(Duration::from_secs(1) / fps);
    }
    Ok(())
}

fn pictures_in(folder: &PathBuf) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<Result<Vec<_>, std::io::Error>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jpg"));
    files.sort();
    Ok(files)
}
