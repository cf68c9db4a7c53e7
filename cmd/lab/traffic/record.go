package traffic

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
)

// Record is what sender and receiver each remember of one message: 32 bytes, so that a million cost
// little.
type Record struct {
	Seq      uint32
	Endpoint uint16 // at the receiver
	Status   uint16 // at the sender; 0 = no answer
	ID       uint64 // hash of the message's id
	Sent     int64  // nanoseconds since 1970, just before the POST
	End      int64  // arrival at the receiver, or the answer at the sender
}

const recordSize = 32

// WriteRecords writes records to a file.
func WriteRecords(path string, records []Record) error {
	out := make([]byte, 0, len(records)*recordSize)
	for _, r := range records {
		out = binary.LittleEndian.AppendUint32(out, r.Seq)
		out = binary.LittleEndian.AppendUint16(out, r.Endpoint)
		out = binary.LittleEndian.AppendUint16(out, r.Status)
		out = binary.LittleEndian.AppendUint64(out, r.ID)
		out = binary.LittleEndian.AppendUint64(out, uint64(r.Sent))
		out = binary.LittleEndian.AppendUint64(out, uint64(r.End))
	}
	if err := os.WriteFile(path, out, 0o644); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	return nil
}

// ReadRecords reads what WriteRecords wrote.
func ReadRecords(path string) ([]Record, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	if len(text)%recordSize != 0 {
		return nil, fmt.Errorf("read records: %s is cut short", path)
	}
	records := make([]Record, 0, len(text)/recordSize)
	for ; len(text) > 0; text = text[recordSize:] {
		records = append(records, Record{
			Seq:      binary.LittleEndian.Uint32(text),
			Endpoint: binary.LittleEndian.Uint16(text[4:]),
			Status:   binary.LittleEndian.Uint16(text[6:]),
			ID:       binary.LittleEndian.Uint64(text[8:]),
			Sent:     int64(binary.LittleEndian.Uint64(text[16:])),
			End:      int64(binary.LittleEndian.Uint64(text[24:])),
		})
	}
	return records, nil
}

// Milliseconds is a length of time in nanoseconds as figures are shown.
func Milliseconds(nanoseconds int64) float64 { return float64(nanoseconds) / 1e6 }

// Seconds is a length of time in nanoseconds as rates are counted.
func Seconds(nanoseconds int64) float64 { return float64(nanoseconds) / 1e9 }

// Percentile is the smallest value that p per cent of the values do not exceed; it sorts them. Of
// nothing it is 0.
func Percentile(values []float64, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[max((len(values)*p+99)/100, 1)-1]
}
