//! The board by the kernel's files: device tree and DMI, thermal zones, cooling devices, cpufreq,
//! and what a Raspberry Pi's firmware tells.
//!
//! Where each file is described:
//! - `class/thermal`: `Documentation/ABI/testing/sysfs-class-thermal` of Linux (thousandths of a
//!   degree, `trip_point_N_type`, `cur_state`);
//! - `cpufreq`: `Documentation/admin-guide/pm/cpufreq.rst` (kHz);
//! - `rpi_volt`: `Documentation/hwmon/raspberrypi-hwmon.rst`, `in0_lcrit_alarm` is 1 when the
//!   voltage was too low within the driver's last poll (2 s);
//! - `get_throttled`: the attribute of `drivers/firmware/raspberrypi.c` in the kernels of Raspberry
//!   Pi OS, hexadecimal without a prefix; its bits as in `vcgencmd get_throttled`. Not in Debian's
//!   own kernels.
//!
//! Every file may be missing, empty or refuse to be read: a Jetson's zones of parts that are
//! switched off answer `EAGAIN`. What cannot be read is left out. The root of all paths is a
//! parameter, so that tests lay out the trees of real boards.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

use crate::board::BoardKind;
use crate::board::Identity;
use crate::board::Reading;
use crate::board::Sensors;
use crate::board::SinceBoot;
use crate::board::governor::Celsius;

/// Longest text of a file: the kernel's attributes have a page at most.
const FILE_BYTES_MAX: u64 = 4096;
/// Most entries of a folder that are looked at: more than any board has zones, coolers or policies.
const ENTRIES_MAX: usize = 256;
/// Most trip points of a zone; the kernel had 12 as its own limit for long.
const TRIPS_MAX: usize = 16;
/// Longest model name that is shown, in characters.
const MODEL_CHARS_MAX: usize = 100;
/// A sensor that answers anything else is broken or of another unit: firmware of PCs gives such.
const PLAUSIBLE: std::ops::RangeInclusive<Celsius> =
    Celsius::from_degrees(-40)..=Celsius::from_degrees(150);
/// A trip elsewhere is a placeholder: ACPI tables are known for 256 °C and for 0.
const PLAUSIBLE_TRIP: std::ops::RangeInclusive<Celsius> =
    Celsius::from_degrees(40)..=Celsius::from_degrees(120);

/// Parts of the names of zones that are the processor's or its chip's: `cpu-thermal` of a Raspberry
/// Pi, `cpu-thermal`, `soc0-thermal` and `tj-thermal` of a Jetson, `x86_pkg_temp` and `TCPU` of
/// PCs, `bigcore0-thermal` of Rockchip's, `bcm2835_thermal` of old Pi kernels.
const PROCESSOR_ZONES: [&str; 6] = ["cpu", "soc", "pkg", "tj", "core", "bcm2835"];
/// Parts of the names of zones that are never the processor's; a board whose zones are all unknown
/// (`acpitz`, `imx_thermal_zone`) is judged by the others.
const FOREIGN_ZONES: [&str; 12] = [
    "batt", "charger", "wifi", "iwl", "modem", "skin", "nvme", "pmic", "fan", "pch", "gpu",
    "tboard",
];
/// Beginnings of the types of cooling devices that slow the processor down: cpufreq (`cpufreq-cpu0`,
/// older kernels `thermal-cpufreq-0`), idle injection, ACPI. A fan is a cooling device as well, and
/// slows nothing down.
const PROCESSOR_COOLERS: [&str; 5] =
    ["cpufreq-", "thermal-cpufreq", "thermal-idle", "idle-", "Processor"];

// Bits of `get_throttled`, by the documentation of `vcgencmd get_throttled`; 16 higher: since boot.
const UNDER_VOLTAGE: u32 = 1 << 0;
const FREQUENCY_CAPPED: u32 = 1 << 1;
const THROTTLED: u32 = 1 << 2;
const SOFT_LIMIT: u32 = 1 << 3;
const SLOWED: u32 = FREQUENCY_CAPPED | THROTTLED | SOFT_LIMIT;
const SINCE_BOOT_SHIFT: u32 = 16;

/// What board it is.
pub fn identify(root: &Path) -> Identity {
    // Below /sys, because a service may be denied the whole of /proc but its own processes.
    let tree = [root.join("sys/firmware/devicetree/base"), root.join("proc/device-tree")];
    let text_of = |name: &str| tree.iter().find_map(|tree| text(&tree.join(name)));
    let compatible = text_of("compatible").unwrap_or_default();
    if let Some(model) = text_of("model") {
        return Identity { kind: kind(&compatible, &model), model: shown(&model) };
    }
    let dmi = root.join("sys/class/dmi/id");
    let parts = ["sys_vendor", "product_name"].map(|name| text(&dmi.join(name)));
    let model = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let model = if model.is_empty() { "unknown".to_string() } else { shown(&model) };
    Identity { model, kind: BoardKind::Generic }
}

/// By the chip, which all boards of a family share; by the module where one chip has many uses.
fn kind(compatible: &str, model: &str) -> BoardKind {
    // `brcm,bcm2711`; `nvidia,p3767-0005` is an Orin Nano's module, p3767-0000 an Orin NX's.
    let has = |word: &str| compatible.split('\0').any(|entry| entry.contains(word));
    if has("bcm2711") || model.starts_with("Raspberry Pi 4") {
        BoardKind::RaspberryPi4
    } else if has("bcm2712") || model.starts_with("Raspberry Pi 5") {
        BoardKind::RaspberryPi5
    } else if has("nvidia,p3767") || model.contains("Orin Nano") || model.contains("Orin NX") {
        BoardKind::JetsonOrinNano
    } else {
        BoardKind::Generic
    }
}

/// Looks at the files below a root.
#[derive(Debug)]
pub struct SysfsBoard {
    root: PathBuf,
    /// The highest limit of each cpufreq policy so far, in kHz. A limit below the hardware's is no
    /// news by itself, a Jetson's power mode and a user set such; one that falls while we look is.
    highest_limits: BTreeMap<PathBuf, u32>,
}

impl SysfsBoard {
    /// `root` is `/`, but for tests.
    pub fn new(root: &Path) -> Self {
        Self { root: root.into(), highest_limits: BTreeMap::new() }
    }

    /// Temperature and lowest passive trip of the processor's zones.
    fn heat(&self) -> (Option<Celsius>, Option<Celsius>) {
        let zones = entries(&self.root.join("sys/class/thermal"), "thermal_zone");
        let named: Vec<(PathBuf, String)> = zones
            .into_iter()
            .filter_map(|zone| text(&zone.join("type")).map(|name| (zone, name.to_lowercase())))
            .collect();
        let is_any = |name: &str, words: &[&str]| words.iter().any(|word| name.contains(word));
        let foreign = |name: &str| is_any(name, &FOREIGN_ZONES);
        let ours = |name: &str| is_any(name, &PROCESSOR_ZONES) && !foreign(name);
        let has_ours = named.iter().any(|(_, name)| ours(name));
        let wanted = |name: &str| if has_ours { ours(name) } else { !foreign(name) };
        let zones: Vec<&PathBuf> =
            named.iter().filter(|(_, name)| wanted(name)).map(|(zone, _)| zone).collect();
        let temperatures = zones.iter().filter_map(|zone| celsius(&zone.join("temp")));
        let trips = zones.iter().flat_map(|zone| passive_trips(zone));
        (
            temperatures.filter(|temperature| PLAUSIBLE.contains(temperature)).max(),
            trips.filter(|trip| PLAUSIBLE_TRIP.contains(trip)).min(),
        )
    }

    /// The firmware's word, on the kernels of Raspberry Pi OS. The node is `soc:firmware` on a Pi 4
    /// and `soc@107c000000:firmware` on a Pi 5.
    fn firmware(&self) -> Option<u32> {
        let buses = entries(&self.root.join("sys/devices/platform"), "soc");
        let nodes = buses.iter().flat_map(|bus| entries(bus, "soc"));
        let mut files = nodes.map(|node| node.join("get_throttled"));
        files.find_map(|file| {
            let text = text(&file)?;
            u32::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok()
        })
    }

    fn voltage_alarm(&self) -> Option<bool> {
        let monitors = entries(&self.root.join("sys/class/hwmon"), "hwmon");
        let mut ours = monitors
            .into_iter()
            .filter(|monitor| text(&monitor.join("name")).is_some_and(|name| name == "rpi_volt"));
        number(&ours.next()?.join("in0_lcrit_alarm")).map(|alarm| alarm != 0)
    }

    /// Whether a cooling device slows the processor down.
    fn cooled(&self) -> Option<bool> {
        let devices = entries(&self.root.join("sys/class/thermal"), "cooling_device");
        let slows = |device: &PathBuf| {
            let kind = text(&device.join("type")).unwrap_or_default();
            PROCESSOR_COOLERS.iter().any(|start| kind.starts_with(start))
        };
        let states = devices.iter().filter(|device| slows(device));
        whether(states.map(|device| number(&device.join("cur_state")).map(|state| state > 0)))
    }

    /// Whether the highest frequency that the processor may have fell since the first look.
    fn capped(&mut self) -> Option<bool> {
        let policies = entries(&self.root.join("sys/devices/system/cpu/cpufreq"), "policy");
        whether(policies.into_iter().map(|policy| {
            let limit = number(&policy.join("scaling_max_freq"))?;
            let highest = self.highest_limits.entry(policy).or_default();
            *highest = limit.max(*highest);
            Some(limit < *highest)
        }))
    }
}

impl Sensors for SysfsBoard {
    fn read(&mut self) -> Reading {
        let (temperature, trip) = self.heat();
        let firmware = self.firmware();
        let has = |bits: u32| firmware.map(|word| word & bits != 0);
        Reading {
            temperature,
            trip,
            under_voltage: whether([has(UNDER_VOLTAGE), self.voltage_alarm()]),
            throttled: whether([has(SLOWED), self.cooled(), self.capped()]),
            since_boot: firmware.map(|word| word >> SINCE_BOOT_SHIFT).map(|word| SinceBoot {
                under_voltage: word & UNDER_VOLTAGE != 0,
                throttled: word & SLOWED != 0,
            }),
        }
    }
}

/// Whether any says yes; `None` when none says anything.
fn whether(answers: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    answers.into_iter().flatten().reduce(|one, other| one || other)
}

fn passive_trips(zone: &Path) -> impl Iterator<Item = Celsius> {
    (0..TRIPS_MAX).filter_map(move |index| {
        let kind = text(&zone.join(format!("trip_point_{index}_type")))?;
        let temperature = zone.join(format!("trip_point_{index}_temp"));
        if kind == "passive" { celsius(&temperature) } else { None }
    })
}

fn celsius(file: &Path) -> Option<Celsius> {
    Some(Celsius::from_millis(text(file)?.parse().ok()?))
}

fn number(file: &Path) -> Option<u32> {
    text(file)?.parse().ok()
}

/// A file's text without the end of its line, or the end of a device tree's string; `None` when it
/// is empty or cannot be read.
fn text(file: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!text.is_empty()).then(|| text.to_string())
}

/// For a log line.
fn shown(model: &str) -> String {
    model.chars().filter(|c| !c.is_control()).take(MODEL_CHARS_MAX).collect()
}

/// Entries of a folder with this start of their names, in order.
fn entries(folder: &Path, start: &str) -> Vec<PathBuf> {
    let Ok(listed) = fs::read_dir(folder) else { return Vec::new() };
    let named = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(start);
    let found = listed.flatten().filter(named).take(ENTRIES_MAX);
    let mut found: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        /// `(path below the root, content)`.
        fn of(files: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for (path, content) in files {
                tree.put(path, content);
            }
            tree
        }

        fn put(&self, path: &str, content: &str) {
            let file = self.0.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }

        fn identity(&self) -> Identity {
            identify(self.0.path())
        }

        fn read(&self) -> Reading {
            SysfsBoard::new(self.0.path()).read()
        }
    }

    const ZONE: &str = "sys/class/thermal/thermal_zone";

    /// As on Raspberry Pi OS bookworm: no passive trip, and the firmware throttles.
    fn pi4() -> Tree {
        Tree::of(&[
            ("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0"),
            ("proc/device-tree/compatible", "raspberrypi,4-model-b\0brcm,bcm2711\0"),
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48686\n"),
            ("sys/class/thermal/thermal_zone0/trip_point_0_type", "critical\n"),
            ("sys/class/thermal/thermal_zone0/trip_point_0_temp", "110000\n"),
            ("sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
            ("sys/class/hwmon/hwmon1/name", "rpi_volt\n"),
            ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0\n"),
            ("sys/devices/platform/soc/soc:firmware/get_throttled", "0\n"),
            ("sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq", "1800000\n"),
            ("sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq", "1800000\n"),
        ])
    }

    #[test]
    fn a_raspberry_pi_tells_voltage_and_throttling_by_its_firmware() {
        let tree = pi4();
        let identity = tree.identity();
        assert_eq!(identity.kind, BoardKind::RaspberryPi4);
        assert_eq!(identity.model, "Raspberry Pi 4 Model B Rev 1.4");
        let calm = tree.read();
        assert_eq!(calm.temperature.map(Celsius::as_millis), Some(48_686));
        assert_eq!((calm.trip, calm.under_voltage), (None, Some(false)));
        assert_eq!((calm.throttled, calm.since_boot), (Some(false), Some(SinceBoot::default())));
        for (word, under_voltage, throttled, before) in [
            ("50005", true, true, SinceBoot { under_voltage: true, throttled: true }),
            ("50000", false, false, SinceBoot { under_voltage: true, throttled: true }),
            ("e0008", false, true, SinceBoot { under_voltage: false, throttled: true }),
            ("1", true, false, SinceBoot::default()),
            ("0x2", false, true, SinceBoot::default()),
        ] {
            tree.put("sys/devices/platform/soc/soc:firmware/get_throttled", word);
            let reading = tree.read();
            let told = (reading.under_voltage, reading.throttled, reading.since_boot);
            assert_eq!(told, (Some(under_voltage), Some(throttled), Some(before)), "{word}");
        }
    }

    /// Debian's kernel has no `get_throttled`, and a Pi 5 another name for its bus.
    #[test]
    fn a_raspberry_pi_5_is_known_by_its_chip_and_its_alarm_is_enough() {
        let tree = Tree::of(&[
            ("sys/firmware/devicetree/base/model", "Raspberry Pi Compute Module 5 Rev 1.0\0"),
            ("sys/firmware/devicetree/base/compatible", "raspberrypi,5-compute\0brcm,bcm2712\0"),
            ("sys/class/hwmon/hwmon2/name", "rpi_volt\n"),
            ("sys/class/hwmon/hwmon2/in0_lcrit_alarm", "1\n"),
            // The fan of the active cooler runs, which is no throttling.
            ("sys/class/thermal/cooling_device0/type", "pwm-fan\n"),
            ("sys/class/thermal/cooling_device0/cur_state", "3\n"),
        ]);
        assert_eq!(tree.identity().kind, BoardKind::RaspberryPi5);
        let reading = tree.read();
        let told = (reading.under_voltage, reading.throttled, reading.since_boot);
        assert_eq!(told, (Some(true), None, None));
        let firmware = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled";
        tree.put(firmware, "80000\n");
        assert_eq!(tree.read().since_boot.map(|before| before.throttled), Some(true));
    }

    /// Zones as `JetPack` 6 lists them; those of parts that are switched off cannot be read, here
    /// played by a folder in the place of the file.
    #[test]
    fn a_jetson_is_as_hot_as_its_hottest_processor_zone_and_skips_what_cannot_be_read() {
        let tree = Tree::of(&[
            (
                "proc/device-tree/model",
                "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
            ),
            (
                "proc/device-tree/compatible",
                "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
            ),
            ("sys/class/thermal/cooling_device7/type", "cpufreq-cpu0\n"),
            ("sys/class/thermal/cooling_device7/cur_state", "0\n"),
            ("sys/class/thermal/cooling_device8/type", "pwm-fan\n"),
            ("sys/class/thermal/cooling_device8/cur_state", "2\n"),
        ]);
        for (index, (name, temperature)) in [
            ("cpu-thermal", Some("49062")),
            ("gpu-thermal", Some("99906")),
            ("cv0-thermal", None),
            ("soc0-thermal", Some("49781")),
            ("soc1-thermal", None),
            ("tj-thermal", Some("50500")),
            ("tboard-thermal", Some("140000")),
        ]
        .into_iter()
        .enumerate()
        {
            tree.put(&format!("{ZONE}{index}/type"), name);
            match temperature {
                Some(temperature) => tree.put(&format!("{ZONE}{index}/temp"), temperature),
                None => tree.put(&format!("{ZONE}{index}/temp/unreadable"), ""),
            }
            for (trip, kind, at) in
                [(0, "critical", "104500"), (1, "hot", "70000"), (2, "passive", "99000")]
            {
                tree.put(&format!("{ZONE}{index}/trip_point_{trip}_type"), kind);
                tree.put(&format!("{ZONE}{index}/trip_point_{trip}_temp"), at);
            }
        }
        assert_eq!(tree.identity().kind, BoardKind::JetsonOrinNano);
        let reading = tree.read();
        assert_eq!(reading.temperature.map(Celsius::as_millis), Some(50_500));
        assert_eq!(reading.trip, Some(Celsius::from_degrees(99)));
        assert_eq!((reading.under_voltage, reading.throttled), (None, Some(false)));
        tree.put("sys/class/thermal/cooling_device7/cur_state", "1\n");
        assert_eq!(tree.read().throttled, Some(true));
    }

    #[test]
    fn a_frequency_that_falls_is_throttling_and_one_that_was_low_before_is_a_power_mode() {
        let policy = "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq";
        let tree = Tree::of(&[(policy, "1510400\n")]);
        tree.put("sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq", "1984000\n");
        let mut board = SysfsBoard::new(tree.0.path());
        assert_eq!(board.read().throttled, Some(false));
        tree.put(policy, "1113600\n");
        assert_eq!(board.read().throttled, Some(true));
        tree.put(policy, "1984000\n");
        assert_eq!(board.read().throttled, Some(false));
        tree.put(policy, "1510400\n");
        assert_eq!(board.read().throttled, Some(true));
    }

    #[test]
    fn a_pc_is_named_by_its_firmware_and_nonsense_is_left_out() {
        let tree = Tree::of(&[
            ("sys/class/dmi/id/sys_vendor", "LENOVO\n"),
            ("sys/class/dmi/id/product_name", "20XW\n"),
            ("sys/class/thermal/thermal_zone0/type", "acpitz\n"),
            ("sys/class/thermal/thermal_zone0/temp", "56000\n"),
            ("sys/class/thermal/thermal_zone0/trip_point_0_type", "passive\n"),
            ("sys/class/thermal/thermal_zone0/trip_point_0_temp", "256000\n"),
            ("sys/class/thermal/thermal_zone1/type", "iwlwifi_1\n"),
            ("sys/class/thermal/thermal_zone1/temp", "61000\n"),
            ("sys/class/thermal/cooling_device0/type", "TCC Offset\n"),
            ("sys/class/thermal/cooling_device0/cur_state", "3\n"),
        ]);
        assert_eq!(tree.identity().model, "LENOVO 20XW");
        let reading = tree.read();
        assert_eq!(reading.temperature, Some(Celsius::from_degrees(56)));
        assert_eq!((reading.trip, reading.throttled), (None, None));
        tree.put("sys/class/thermal/thermal_zone2/type", "x86_pkg_temp\n");
        tree.put("sys/class/thermal/thermal_zone2/temp", "-274000\n");
        assert_eq!(tree.read().temperature, None, "the processor's own zone is asked, and broken");
    }

    #[test]
    fn a_machine_without_any_of_these_files_is_unknown_and_nothing_is_known_of_it() {
        let tree = Tree::of(&[]);
        assert_eq!(tree.identity(), Identity { model: "unknown".into(), kind: BoardKind::Generic });
        assert_eq!(tree.read(), Reading::default());
    }

    proptest! {
        #[test]
        fn any_content_is_survived(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let tree = pi4();
            for path in [
                "proc/device-tree/model",
                "proc/device-tree/compatible",
                "sys/class/thermal/thermal_zone0/temp",
                "sys/class/thermal/thermal_zone0/type",
                "sys/class/hwmon/hwmon1/in0_lcrit_alarm",
                "sys/devices/platform/soc/soc:firmware/get_throttled",
                "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq",
            ] {
                fs::write(tree.0.path().join(path), &content).unwrap();
                let _ = (tree.identity(), tree.read());
            }
        }
    }
}
