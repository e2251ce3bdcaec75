"""A training loop in PyTorch whose seeds are watched by a hook.

	python torch_loop.py http://127.0.0.1:8080
"""

import argparse
import time

import torch

from oona_client import Client, State
from oona_client.modules import Watch

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("url", nargs="+", help="of ingest; several if there are several")
parser.add_argument("--steps", type=int, default=500)
options = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
seeds = torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16)) for _ in range(8))
seeds.to(device)
target = torch.nn.Linear(16, 16).to(device)
optimiser = torch.optim.Adam(seeds.parameters(), lr=1e-3)

with Client(options.url, run=f"torch-{int(time.time())}") as oona:
    watch = Watch(oona, "enc.0", seeds, State.TRAINING, every=5)
    for step in range(options.steps):
        x = torch.randn(64, 16, device=device)
        losses = torch.stack([(seed(x) - target(x)).pow(2).mean() for seed in seeds])
        optimiser.zero_grad()
        losses.sum().backward()
        watch.frame(step, {"reconstruction_loss": losses})  # stays on the GPU: nothing waits for it
        optimiser.step()
    oona.end()
    print(oona.close().frames)
