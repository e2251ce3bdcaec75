"""Children of multiprocessing, which end without what is registered with atexit."""

import pytest
from server import Server
from test_process import script, steps_of


@pytest.mark.parametrize("sender", ["process", "thread"])
@pytest.mark.parametrize("where", ["before", "within"])
def test_a_child_of_multiprocessing_closes_its_client_when_it_ends(sender, where):
    with Server() as server:
        process = script("""
            import multiprocessing
            def make():
                return Client(sys.argv[1], "run", sender=sys.argv[2], linger=60, close_timeout=200)
            oona = make() if sys.argv[3] == "before" else None
            def work(n):
                global oona
                oona = oona or make()
                send([n])
            children = [multiprocessing.get_context("fork").Process(target=work, args=(n,)) for n in range(3)]
            for child in children:
                child.start()
            for child in children:
                child.join()
            assert not any(child.exitcode for child in children)
            if oona:
                oona.close()
            print("done")
        """, server.url, sender, where)
        out, err = process.communicate(timeout=300)
        assert out == "done\n", err
        assert sorted(steps_of(server)) == [0, 1, 2]
