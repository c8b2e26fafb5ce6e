//! The smallest PNG file that shows a palette's pixels.

/// One byte for each pixel, an index into the palette; no interlacing.
const HEADER_REST: [u8; 5] = [8, 3, 0, 0, 0];

const DEFLATE_LEVEL: u8 = 9;

/// A PNG file. `colours` are red, green, blue of each index.
pub fn encode(width: u32, height: u32, colours: &[u8], pixels: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend(HEADER_REST);

    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut file, b"IHDR", &header);
    chunk(&mut file, b"PLTE", colours);
    chunk(&mut file, b"IDAT", &deflate(width as usize, pixels));
    chunk(&mut file, b"IEND", &[]);
    file
}

/// Each row is led by the number of its filter: none, which suits palettes best.
fn deflate(width: usize, pixels: &[u8]) -> Vec<u8> {
    let mut rows = Vec::with_capacity(pixels.len() + pixels.len() / width.max(1));
    for row in pixels.chunks(width.max(1)) {
        rows.push(0);
        rows.extend(row);
    }
    miniz_oxide::deflate::compress_to_vec_zlib(&rows, DEFLATE_LEVEL)
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX); // pictures are limited to far less
    file.extend(length.to_be_bytes());
    file.extend(kind);
    file.extend(data);
    file.extend(crc32(kind.iter().chain(data)).to_be_bytes());
}

/// The checksum of a chunk, bit by bit: the tables of a faster way would be a tenth of the module.
fn crc32<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(!0, |sum, byte| {
        let sum = sum ^ u32::from(*byte);
        (0..8).fold(sum, |sum, _| {
            if sum & 1 == 1 {
                (sum >> 1) ^ 0xedb8_8320
            } else {
                sum >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_chunk_has_its_well_known_bytes() {
        let file = encode(2, 1, &[0, 0, 0, 255, 255, 255], &[0, 1]);
        assert!(file.ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82"));
    }
}
