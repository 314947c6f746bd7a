"""The program on nginx: ``python nchan_server.py NGINX FOLDER PORT`` becomes an nginx that lives in the folder."""

import os
import sys
from pathlib import Path

nginx, folder, port = sys.argv[1:]
settings = Path(folder) / "nginx.conf"
template = Path(__file__).with_name("nchan.conf").read_text()
settings.write_text(template.replace("FOLDER", folder).replace("PORT", port))
os.execv(nginx, [nginx, "-c", str(settings), "-p", folder])
