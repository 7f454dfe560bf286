//! What the end of an ORC file says of it, checked before the decoder believes it.
//!
//! The decoder follows types down to their parts and would follow a damaged file in circles until the stack ends,
//! which no thread survives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;
use orc_rust::proto::r#type::Kind;
use orc_rust::proto::{CalendarKind, CompressionKind, Footer, PostScript, Type};
use prost::Message;

/// Deeper types are refused.
const DEPTH_MAX: usize = 64;

/// What the decoder does not tell of a file.
pub(super) struct Tail {
    /// Times are counted by the calendar of their time. Files that do not say so, do too: so Spark has it, and all
    /// writers of Java.
    pub(super) hybrid: bool,
    /// What Spark calls a type, by the number of the type, where ORC has none like it.
    pub(super) meant: BTreeMap<usize, String>,
}

/// Says what is wrong with the end of a file, or else what is in it.
pub(super) fn check(file: &mut File) -> Result<Tail, String> {
    let failed = |error: std::io::Error| error.to_string();
    let len = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let mut read = |from: u64, to: u64| {
        file.seek(SeekFrom::Start(from)).map_err(failed)?;
        let mut bytes = vec![0; (to - from) as usize];
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok::<_, String>(bytes)
    };
    let within = |part: &str| format!("its {part} does not fit in it: it was cut short");
    let before =
        |end: u64, size: u64, part: &str| end.checked_sub(size).ok_or_else(|| within(part));
    let end = before(len, 1, "end")?;
    let size = u64::from(read(end, len)?[0]);
    let start = before(end, size, "postscript")?;
    let postscript = PostScript::decode(read(start, end)?.as_slice()).map_err(|e| e.to_string())?;
    if postscript.magic() != "ORC" {
        return Err("it does not end as ORC files do".into());
    }
    // What it asks for is set aside for every block.
    if postscript.compression_block_size() > 1 << 24 {
        return Err("its blocks are larger than any ORC file has".into());
    }
    let footer = before(start, postscript.footer_length(), "footer")?;
    let metadata = before(footer, postscript.metadata_length(), "metadata")?;
    let plain = decompress(&read(footer, start)?, &postscript)?;
    let footer = Footer::decode(plain.as_slice()).map_err(|e| e.to_string())?;
    for stripe in &footer.stripes {
        let parts = [
            stripe.index_length(),
            stripe.data_length(),
            stripe.footer_length(),
        ];
        let end = parts
            .iter()
            .try_fold(stripe.offset(), |at, part| at.checked_add(*part));
        if end.is_none_or(|end| end > metadata) {
            return Err(within("stripe"));
        }
    }
    types(&footer.types)?;
    let meant = footer.types.iter().enumerate().filter_map(|(at, part)| {
        let mut attributes = part.attributes.iter();
        let meant = attributes.find(|pair| pair.key() == "spark.sql.catalyst.type")?;
        Some((at, meant.value().to_string()))
    });
    Ok(Tail {
        hybrid: footer.calendar() != CalendarKind::ProlepticGregorian,
        meant: meant.collect(),
    })
}

/// Compressed parts are chunks: three bytes tell the length of one, and in the lowest bit whether it is as it was.
fn decompress(mut bytes: &[u8], postscript: &PostScript) -> Result<Vec<u8>, String> {
    let kind = postscript.compression();
    if kind == CompressionKind::None {
        return Ok(bytes.into());
    }
    let most = match postscript.compression_block_size {
        Some(size) => size as usize,
        None => 256 << 10,
    };
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        let cut = || "its footer is no whole number of chunks".to_string();
        let (header, rest) = bytes.split_first_chunk::<3>().ok_or_else(cut)?;
        let header = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let (chunk, rest) = rest
            .split_at_checked(header as usize >> 1)
            .ok_or_else(cut)?;
        bytes = rest;
        if header & 1 == 1 {
            plain.extend_from_slice(chunk);
            continue;
        }
        let mut read = |input: &mut dyn Read| {
            let read = input.take(most as u64).read_to_end(&mut plain);
            read.map(drop).map_err(|error| error.to_string())
        };
        let block = match kind {
            CompressionKind::Zlib => {
                read(&mut DeflateDecoder::new(chunk))?;
                continue;
            }
            CompressionKind::Zstd => {
                read(&mut zstd::Decoder::new(chunk).map_err(|e| e.to_string())?)?;
                continue;
            }
            CompressionKind::Snappy => match snap::raw::decompress_len(chunk) {
                Ok(len) if len <= most => snap::raw::Decoder::new()
                    .decompress_vec(chunk)
                    .map_err(|e| e.to_string()),
                Ok(_) => Err("a chunk is larger than it says".into()),
                Err(error) => Err(error.to_string()),
            },
            CompressionKind::Lz4 => {
                lz4_flex::block::decompress(chunk, most).map_err(|e| e.to_string())
            }
            _ => Err("it is compressed with LZO, which is not supported".into()),
        };
        plain.extend_from_slice(&block?);
    }
    Ok(plain)
}

/// The parts of a type come behind it, so that no type holds itself.
fn types(types: &[Type]) -> Result<(), String> {
    let mut depths = vec![0; types.len()];
    for (at, part) in types.iter().enumerate() {
        for child in &part.subtypes {
            match depths.get_mut(*child as usize) {
                Some(0) if *child as usize > at => depths[*child as usize] = depths[at] + 1,
                _ => return Err(format!("its type {at} has a part {child}")),
            }
        }
        if depths[at] > DEPTH_MAX {
            return Err(format!("its types are more than {DEPTH_MAX} deep"));
        }
        let (precision, scale) = (part.precision(), part.scale());
        if part.kind() == Kind::Decimal && (!(1..=38).contains(&precision) || scale > precision) {
            return Err(format!("it has a decimal({precision}, {scale})"));
        }
    }
    match types.first().map(Type::kind) {
        Some(Kind::Struct) => Ok(()),
        _ => Err("its rows are no structs".into()),
    }
}
