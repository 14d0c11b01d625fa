//! The pictures of an evaluation: `people/<name>/*`, `strangers/<name>/*` and `pairs.txt` in the
//! form of Labeled Faces in the Wild.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// One picture and whose it is.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The file.
    pub path: PathBuf,
    /// Index into [`Dataset::names`].
    pub person: usize,
    /// Whether the person belongs to `strangers/`.
    pub stranger: bool,
}

/// A comparison of two pictures, by their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The fold that the pair is scored in, from 0.
    pub fold: usize,
    /// First picture.
    pub first: usize,
    /// Second picture.
    pub second: usize,
    /// Whether both show one person.
    pub same: bool,
}

/// Everything that is read before the first picture is decoded.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    /// Folder names, people first, then strangers.
    pub names: Vec<String>,
    /// All pictures, ordered by person.
    pub pictures: Vec<Picture>,
    /// The verification protocol; empty without `pairs.txt`.
    pub pairs: Vec<Pair>,
}

/// Lists the pictures below `dir` and reads its pairs.
pub fn read(dir: &Path) -> anyhow::Result<Dataset> {
    let mut dataset = Dataset::default();
    read_people(&mut dataset, &dir.join("people"), false)?;
    if dataset.pictures.is_empty() {
        bail!("{} holds no pictures; wanted: DIR/people/<name>/*.jpg", dir.display());
    }
    if dir.join("strangers").is_dir() {
        read_people(&mut dataset, &dir.join("strangers"), true)?;
    }
    let pairs = dir.join("pairs.txt");
    if pairs.is_file() {
        let text = fs::read_to_string(&pairs).with_context(|| pairs.display().to_string())?;
        dataset.pairs =
            parse_pairs(&text, &dataset).with_context(|| pairs.display().to_string())?;
    }
    Ok(dataset)
}

fn read_people(dataset: &mut Dataset, dir: &Path, stranger: bool) -> anyhow::Result<()> {
    for folder in sorted(dir)?.into_iter().filter(|path| path.is_dir()) {
        let files: Vec<PathBuf> = sorted(&folder)?.into_iter().filter(|f| f.is_file()).collect();
        if files.is_empty() {
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().to_string();
        let person = dataset.names.len();
        dataset.names.push(name);
        dataset.pictures.extend(files.into_iter().map(|path| Picture { path, person, stranger }));
    }
    Ok(())
}

/// What a directory holds, by name; an error names the directory.
pub fn sorted(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}

/// The header is `folds pairs-per-kind`; then each fold has that many lines `name i j` (one
/// person) and as many `name i name j` (two), where i counts a person's pictures from 1.
fn parse_pairs(text: &str, dataset: &Dataset) -> anyhow::Result<Vec<Pair>> {
    let mut by_stem = HashMap::new();
    for (index, picture) in dataset.pictures.iter().enumerate() {
        by_stem.insert(picture.path.file_stem().unwrap_or_default().to_owned(), index);
    }
    let find = |name: &str, number: &str| -> anyhow::Result<usize> {
        let number: u32 = number.parse().with_context(|| format!("`{number}` is no number"))?;
        let stem = format!("{name}_{number:04}");
        let found = by_stem.get(std::ffi::OsStr::new(&stem)).copied();
        found.with_context(|| format!("the picture {stem} is not below people/"))
    };
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let [_folds, per_kind] = header.as_slice() else {
        bail!("the first line must hold the numbers of folds and of pairs per kind");
    };
    let per_fold = 2 * per_kind.parse::<usize>().context("the first line holds no number")?;
    let mut pairs = Vec::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let fold = pairs.len() / per_fold.max(1);
        let pair = match *line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [name, a, b] => {
                Pair { fold, first: find(name, a)?, second: find(name, b)?, same: true }
            }
            [name, a, other, b] => {
                Pair { fold, first: find(name, a)?, second: find(other, b)?, same: false }
            }
            _ => bail!("`{line}` has neither three nor four columns"),
        };
        pairs.push(pair);
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset() -> Dataset {
        let picture = |path: &str, person| Picture { path: path.into(), person, stranger: false };
        Dataset {
            names: vec!["A".into(), "B".into()],
            pictures: vec![
                picture("A/A_0001.jpg", 0),
                picture("A/A_0002.jpg", 0),
                picture("B/B_0001.jpg", 1),
            ],
            pairs: Vec::new(),
        }
    }

    #[test]
    fn pairs_of_both_kinds_are_read_with_their_fold() {
        let pairs = parse_pairs("2 1\nA 1 2\nA 1 B 1\nA 2 1\nA\t2\tB\t1\n", &dataset()).unwrap();
        assert_eq!(pairs.len(), 4);
        assert_eq!(pairs[1], Pair { fold: 0, first: 0, second: 2, same: false });
        assert_eq!(pairs[2], Pair { fold: 1, first: 1, second: 0, same: true });
    }

    #[test]
    fn what_is_wrong_with_a_pairs_file_is_named() {
        for (text, wanted) in [
            ("x", "first line"),
            ("1 1\nA 1", "columns"),
            ("1 1\nA 1 9", "A_0009"),
            ("1 1\nA 1 z", "`z`"),
        ] {
            let message = format!("{:#}", parse_pairs(text, &dataset()).unwrap_err());
            assert!(message.contains(wanted), "{message}");
        }
    }
}
