package windows

import "github.com/morphogenetic/oona"

// SlotNumber returns the slot of a producer on a path, of n: see Config.FrontierSlots. It is
// for engines that make other windows of the same log.
func SlotNumber(producer oona.ProducerID, path string, n int) int {
	return slotNumber(producer, path, n)
}
