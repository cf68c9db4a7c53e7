// Program passes every failpoint a few times, as its environment says; the package's tests run it.
package main

import (
	"fmt"
	"os"

	"github.com/posthaste/posthaste/internal/failpoint"
)

func main() {
	if err := failpoint.Configure(); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	for i := range 10 {
		failpoint.Hit(failpoint.WorkerAfterSend)
		if err := failpoint.Error(failpoint.StoreAccept); err != nil {
			fmt.Println("error", i+1)
		}
		fmt.Println("passed", i+1)
	}
}
