@echo off
rem Text to image on the command line; sets up .venv on the first start: pipeline.bat "a prompt" 512 512 1 1
setlocal
call "%~dp0tools\setup.bat" requirements.txt || exit /b 1
"%~dp0.venv\Scripts\python.exe" "%~dp0pipeline.py" %*
exit /b %errorlevel%
