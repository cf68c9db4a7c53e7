package bench

import (
	"encoding/binary"
	"fmt"
	"os"
)

// record is what sender and receiver each remember of one message: 32 bytes, so that a million cost
// little.
type record struct {
	seq      uint32
	endpoint uint16 // at the receiver
	status   uint16 // at the sender; 0 = no answer
	id       uint64 // hash of the message's id
	sent     int64  // nanoseconds since 1970, just before the POST
	end      int64  // arrival at the receiver, or the answer at the sender
}

const recordSize = 32

func writeRecords(path string, records []record) error {
	out := make([]byte, 0, len(records)*recordSize)
	for _, r := range records {
		out = binary.LittleEndian.AppendUint32(out, r.seq)
		out = binary.LittleEndian.AppendUint16(out, r.endpoint)
		out = binary.LittleEndian.AppendUint16(out, r.status)
		out = binary.LittleEndian.AppendUint64(out, r.id)
		out = binary.LittleEndian.AppendUint64(out, uint64(r.sent))
		out = binary.LittleEndian.AppendUint64(out, uint64(r.end))
	}
	if err := os.WriteFile(path, out, 0o644); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	return nil
}

func readRecords(path string) ([]record, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	if len(text)%recordSize != 0 {
		return nil, fmt.Errorf("read records: %s is cut short", path)
	}
	records := make([]record, 0, len(text)/recordSize)
	for ; len(text) > 0; text = text[recordSize:] {
		records = append(records, record{
			seq:      binary.LittleEndian.Uint32(text),
			endpoint: binary.LittleEndian.Uint16(text[4:]),
			status:   binary.LittleEndian.Uint16(text[6:]),
			id:       binary.LittleEndian.Uint64(text[8:]),
			sent:     int64(binary.LittleEndian.Uint64(text[16:])),
			end:      int64(binary.LittleEndian.Uint64(text[24:])),
		})
	}
	return records, nil
}
